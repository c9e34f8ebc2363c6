"""The package sagemaker-inference, for handlers written for it: our codecs under its names.

This is last on the server's path, so that the package itself takes precedence if it is installed. Two
differences are intended: pickled arrays are refused; a type may have parameters (`text/csv; header=absent`).
"""
