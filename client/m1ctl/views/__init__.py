"""What a person sees: lines, pages, tables, the live monitor."""
