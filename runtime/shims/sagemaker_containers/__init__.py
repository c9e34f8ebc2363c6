"""What handlers written for SageMaker Containers import: our codecs and werkzeug's Response under its names.

What both packages have it takes from `sagemaker_inference` beside it. Of what handlers use all but RecordIO
is in `beta.framework`: `content_types`, `encoders`, `errors`, `worker.Response`. Its server and its training
are not.
"""
