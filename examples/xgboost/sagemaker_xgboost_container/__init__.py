"""The parts of AWS's XGBoost container that scripts import."""
