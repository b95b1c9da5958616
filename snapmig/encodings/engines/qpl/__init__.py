"""Intel's In-Memory Analytics Accelerator through its Query Processing Library."""
