from predict import predict


def app(environ, start_response):
    body = b""
    if environ["PATH_INFO"] == "/invocations":
        body = environ["wsgi.input"].read()
        if environ["CONTENT_TYPE"] != "application/json":
            body = predict(body, environ["CONTENT_TYPE"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
