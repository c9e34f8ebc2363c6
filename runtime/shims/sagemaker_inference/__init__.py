"""What handlers written for the package sagemaker-inference import: our codecs under its names.

It lies at the very end of the path of a server, so that the package itself comes first where it is installed.
Two differences are meant: pickled arrays are refused; a type may have parameters (`text/csv; header=absent`).
"""
