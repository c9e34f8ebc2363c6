"""What scripts for AWS's XGBoost container import of it."""
