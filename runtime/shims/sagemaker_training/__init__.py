"""What scripts written for the package sagemaker-training import: our job under its names.

It is last on the path, so that the package itself takes precedence if it is installed.
"""
