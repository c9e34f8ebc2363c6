"""What training scripts written for the package sagemaker-training import: our job under its names.

It lies at the very end of the path, so that the package itself comes first where it is installed.
"""
