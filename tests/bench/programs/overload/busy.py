import time


def compute():
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass


def app(environ, start_response):
    if environ["PATH_INFO"] == "/invocations":
        environ["wsgi.input"].read()
        compute()
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
