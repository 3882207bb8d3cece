"""Networks and formats side by side on this machine: contestants in processes of their own, called in turn; ratios with their spread."""
