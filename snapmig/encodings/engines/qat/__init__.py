"""Intel's QuickAssist through QATzip."""
