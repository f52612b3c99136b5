"""Speed, memory and scaling, measured side by side."""
