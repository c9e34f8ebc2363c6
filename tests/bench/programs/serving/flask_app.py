import flask
from predict import predict

app = flask.Flask(__name__)


@app.get("/ping")
def ping():
    return ""


@app.post("/invocations")
def invocations():
    return predict(flask.request.get_data(), flask.request.content_type)
