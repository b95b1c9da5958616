"""kdump-compressed dumps: headers, bitmaps and pages."""
