#!/usr/bin/env python3
"""A minimal toolkit that keeps the contract; FAULT makes it break one clause.

It shares nothing with optml, so it also shows that the check wants the contract, not our way of keeping it.
"""

import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ML = "/opt/ml"
FAULT = os.environ.get("FAULT", "")
STARTED = time.monotonic()


# Training


def setting(name, default):
    path = f"{ML}/input/config/{name}.json"
    if not os.path.exists(path):
        if FAULT == "C-FILES-1":
            sys.exit(f"{path} is absent")
        return default
    with open(path) as file:
        return json.load(file)


def configuration():
    try:
        parameters = setting("hyperparameters", {})
        resources = setting("resourceconfig", {"current_host": "localhost", "hosts": ["localhost"]})
        channels = setting("inputdataconfig", {})
    except ValueError as error:
        sys.exit(0 if FAULT == "C-FILES-3" else f"a file of {ML}/input/config is broken: {error}")
    if FAULT == "C-FILES-2":
        resources["topology"].get("level") if "topology" in resources else None
    return parameters, resources, channels


def decoded(text):
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if FAULT == "C-PARAM-3":
        return str(found)
    return found if isinstance(found, str) else text


def train():
    careful("train")
    parameters, resources, channels = configuration()
    program = os.environ.get("SAGEMAKER_PROGRAM") or decoded(parameters.get("sagemaker_program", "train.py"))
    own = {k: decoded(v) for k, v in parameters.items() if not k.startswith("sagemaker_")}
    environment = described(own, resources, channels)
    arguments = [word for k, v in sorted(own.items()) for word in (f"-{'' if len(k) == 1 else '-'}{k}", v)]
    if FAULT == "C-PARAM-1":
        arguments = [f"{k}={v}" for k, v in own.items()]
    if FAULT == "C-SECRET-1":
        print("running with", own, flush=True)
    path = f"{ML}/code/{program}"
    if not os.path.exists(path):
        print(f"there is no {path}", file=sys.stderr)
        return 0 if FAULT == "T-EXIT-4" else 1
    command = [sys.executable, path, *arguments]
    if FAULT == "C-PARAM-2":
        command = ["sh", "-c", " ".join([sys.executable, path, *(f'"{a}"' for a in arguments)])]
    code, words = supervised(command, environment)
    return outcome(code, words)


def described(own, resources, channels):
    """The environment of the program."""
    found = dict(os.environ)
    if FAULT == "C-ENV-1":
        found.pop("MY_SETTING", None)
    found |= {
        "SM_MODEL_DIR": f"{ML}/model",
        "SM_OUTPUT_DATA_DIR": f"{ML}/output/data",
        "SM_CURRENT_HOST": resources["current_host"],
        "SM_HOSTS": json.dumps(resources["hosts"]),
        "SM_NUM_CPUS": str(os.cpu_count() if FAULT == "C-ENV-3" else len(os.sched_getaffinity(0))),
        "SM_NUM_GPUS": "0",
        "SM_HPS": json.dumps(own),
        "SM_CHANNELS": json.dumps(
            list(channels) if FAULT == "C-CHANNEL-2" else sorted(channels), separators=(",", ":")
        ),
    }
    if FAULT != "C-PARAM-4":
        found |= {f"SM_HP_{k.upper()}": v for k, v in own.items()}
    known = [name for name in channels if FAULT != "C-CHANNEL-1" or name != "train"]
    found |= {f"SM_CHANNEL_{name.upper()}": f"{ML}/input/data/{name}" for name in known}
    if FAULT == "C-CHANNEL-3":
        found["SM_CHANNEL_DATA"] = str({name: os.listdir(f"{ML}/input/data/{name}") for name in channels})
    if FAULT == "C-HOSTS-1":
        found["SM_HOSTS"] = json.dumps([resources["current_host"]])
    if FAULT == "C-ENV-2":
        del found["SM_NUM_GPUS"]
    return found


def supervised(command, environment):
    """Run the program, pass signals on, and reap; returns its exit code and the end of its stderr."""
    words = [b""]
    hidden = {"stdout": subprocess.DEVNULL} if FAULT == "T-LOG-1" else {}
    child = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, start_new_session=True, **hidden
    )

    def copy():
        while chunk := os.read(child.stderr.fileno(), 65536):
            words[0] = (words[0] + chunk)[-100_000:]
            if FAULT == "T-LOG-2":
                os.write(1, chunk)
            else:
                os.write(2, chunk)

    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    if FAULT == "G-TERM-2":
        signal.signal(signal.SIGTERM, lambda *_: os.killpg(child.pid, signal.SIGTERM) or stopped.append(1))
    elif FAULT != "G-TERM-1":
        signal.signal(signal.SIGTERM, lambda *_: os.killpg(child.pid, signal.SIGTERM))
    else:
        signal.signal(signal.SIGTERM, lambda *_: os.killpg(child.pid, signal.SIGKILL))
    if FAULT == "G-ORPHAN-1":
        code = child.wait()
    else:
        code = None
        while code is None:
            pid, status = os.wait()
            if pid == child.pid:
                code = os.waitstatus_to_exitcode(status)
    copier.join(0.5)
    return code, words[0].decode(errors="replace")


stopped = []


def outcome(code, words):
    with open(f"{ML}/code/conformance_probe.py") as file:
        hungry = "'memory'" in file.readline()
    broken_ends = {"T-EXIT-6" if hungry else "T-EXIT-3": -9}
    if FAULT == "T-EXIT-2" and code == 7:
        code = 1
    if FAULT == "G-TERM-3" and code == 42:
        code = 1
    failure = f"{ML}/output/failure"
    if code or FAULT == "T-EXIT-0":  # noqa: SIM102
        if not os.path.exists(failure) or FAULT == "T-FAIL-3":
            last = words.strip().rpartition("\n")[2]
            text = words if FAULT == "T-FAIL-2" else f"{last}\n{words}"
            try:
                if FAULT != "T-FAIL-1":
                    with open(failure, "w") as file:
                        file.write(text)
            except OSError as error:
                print(error, file=sys.stderr)
                if FAULT == "T-EXIT-5":
                    return 0
    if FAULT == "T-OUT-1":
        with suppress(OSError):
            os.remove(f"{ML}/model/weights")
    if FAULT == "T-OUT-2":
        with suppress(OSError):
            os.remove(f"{ML}/output/data/curve")
    if FAULT == "G-TERM-2" and stopped and code < 0:
        return 0
    if FAULT == "T-EXIT-1" and code == 1 and os.path.exists(failure):
        return 0
    if FAULT in broken_ends and code == broken_ends[FAULT]:
        return 0
    return 128 - code if code < 0 else code


def careful(verb):
    """Faults that rely on what careful platforms take away."""
    number = {"train": 1, "serve": 2}[verb]
    root = os.getuid() == 0
    if f"X-UID-{number}" == FAULT:
        import pwd

        pwd.getpwuid(os.getuid())
    if f"X-ROOT-{number}" == FAULT and root:
        with open("/var/toolkit.pid", "w") as file:
            file.write("1")
    if f"X-CAP-{number}" == FAULT and root:
        with open("/tmp/toolkit.owner", "w") as file:
            os.fchown(file.fileno(), 1, 1)
    if FAULT == "X-NET-1" and verb == "train" and not any(name != "lo" for _, name in socket.if_nameindex()):
        sys.exit("there is no network")
    if FAULT == "X-NET-2" and verb == "serve":
        # Stands in for a download, which needs a name server besides the engine's. Tests need no internet.
        with open("/etc/resolv.conf") as file:
            if "nameserver 127.0.0.11" in file.read():
                sys.exit("there is no way to the internet")
    if FAULT == "X-MEMORY-1" and verb == "serve" and memory_limit() < 2**40:
        sys.exit("there is too little memory")
    if FAULT == "V-BATCH-2" and verb == "serve" and "SAGEMAKER_BATCH" in os.environ:
        sys.exit("what is a batch?")
    if FAULT == "X-MODEL-1" and verb == "serve":
        with open(f"{ML}/model/.lock", "w") as file:
            file.write("1")


def memory_limit():
    """The container's, by either version of control groups."""
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError), open(f"/sys/fs/cgroup/{path}") as file:
            return int(file.read())
    return 2**60


# Serving


class Context:
    def __init__(self, headers):
        self.request_headers, self.response_headers = headers, {}


class Models:
    """Loaded models by name; that of an ordinary endpoint has an empty name."""

    def __init__(self):
        self.loaded = {}
        self.urls = {}

    def load(self, name, folder):
        path = f"{folder}/code/inference.py"
        if os.path.exists(path):
            spec = importlib.util.spec_from_file_location(f"handlers_{name}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.loaded[name] = module, module.model_fn(folder)
            self.urls[name] = folder


models = Models()
state = {"ready": False, "calls": 0}
slots = threading.BoundedSemaphore(1 if FAULT == "V-CALL-2" else 64)


class Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message):
        self.answer(status, json.dumps({"code": status, "message": message}).encode())

    def do_GET(self):
        if self.path == "/ping":
            return self.ping()
        if self.path == "/execution-parameters":
            known = {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
            if FAULT == "V-BATCH-1":
                del known["BatchStrategy"]
            return self.answer(200, json.dumps(known).encode())
        if self.path == "/models":
            found = (
                []
                if FAULT == "M-LIST-1"
                else [{"modelName": n, "modelUrl": u} for n, u in models.urls.items()]
            )
            return self.answer(200, json.dumps({"models": found}).encode())
        if self.path == "/invocations":
            return self.refuse(200 if FAULT == "V-ERROR-4" else 405, "use POST")
        if self.path == "/invocations-bidirectional-stream" and FAULT != "S-BOTH-1":
            return self.upgrade()
        return self.refuse(200 if FAULT == "V-ERROR-3" else 404, "no such path")

    def upgrade(self):
        import base64
        import hashlib

        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header(
            "Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        )
        self.end_headers()
        self.close_connection = True

    def ping(self):
        if FAULT == "P-LOAD-1" and state["calls"]:
            time.sleep(2.5)
        if FAULT == "P-SLOW-1" and state.get("reading", 0) > 5:
            time.sleep(2.5)
        early = FAULT == "P-READY-2" and time.monotonic() - STARTED > 1
        self.answer(200 if state["ready"] or early else 503)

    def do_POST(self):
        body = self.body()
        if FAULT == "V-SIZE-1" and len(body) > 1_000_000:
            return self.refuse(413, "too large")
        if self.path == "/models":
            return self.register(json.loads(body))
        name = ""
        if match := re.fullmatch("/models/(.+)/invoke", self.path):
            name = match[1]
            if name not in models.loaded:
                return self.refuse(500 if FAULT == "M-INVOKE-1" else 404, f"Model not found: {name}")
            if FAULT == "M-LOAD-1":
                return self.refuse(500, "not today")
        elif self.path != "/invocations":
            return self.refuse(404, "no such path")
        if FAULT == "V-HEADER-2" and self.headers["X-Amzn-SageMaker-Unheard-Of"]:
            return self.refuse(400, "unknown header")
        if not slots.acquire(blocking=FAULT != "V-CALL-2"):
            return self.refuse(503, "busy")
        state["calls"] += 1
        try:
            if FAULT == "V-CALL-2":
                time.sleep(0.2)
            self.predict(name, body)
        finally:
            state["calls"] -= 1
            slots.release()

    def body(self):
        if self.headers["Transfer-Encoding"] == "chunked":
            if FAULT == "V-SIZE-2":
                self.close_connection = True
                return b""
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        state["reading"] = state.get("reading", 0) + 1
        try:
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        finally:
            state["reading"] -= 1

    def predict(self, name, body):
        if name not in models.loaded:
            return self.refuse(503, "the model is not ready")
        module, model = models.loaded[name]
        if b'"die"' in body:
            return self.die(module, model, body)
        if FAULT == "V-TIME-1" and b'"sleep": 50' in body:
            time.sleep(5)
            return self.refuse(504, "too long")
        context = Context({} if FAULT == "V-HEADER-1" else self.headers)
        try:
            prediction = module.predict_fn(
                module.input_fn(body, self.headers["Content-Type"]), model, context
            )
            output = module.output_fn(prediction, self.headers["Accept"])
        except Exception as error:
            import traceback

            text = traceback.format_exc() if FAULT == "V-ERROR-2" else repr(error)
            return self.refuse(200 if FAULT == "V-ERROR-1" else 500, text)
        if isinstance(output, str):
            headers = {} if FAULT == "V-HEADER-3" else context.response_headers
            status = 500 if FAULT == "V-CALL-1" and b"hello" in body else 200
            return self.answer(status, output.encode(), headers=headers)
        if FAULT == "S-CHUNK-1":
            return self.answer(200, "".join(output).encode())
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in output:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part.encode()))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        return None

    def die(self, module, model, body):
        """A call that kills its process, which is therefore a process of its own."""
        if FAULT == "P-CRASH-1":
            state["ready"] = False
            return self.refuse(500, "broken for ever")
        pid = os.fork()
        if not pid:
            module.predict_fn(body, model)
            os._exit(0)
        os.waitpid(pid, 0)
        return self.refuse(500, "the model died")

    def register(self, asked):
        name = asked["model_name"]
        if name in models.loaded:
            return self.refuse(200 if FAULT == "M-LOAD-2" else 409, f"Model {name} is already registered.")
        models.load(name, asked["url"])
        return self.answer(200, b'{"status": "Workers scaled"}')

    def do_DELETE(self):
        name = self.path.removeprefix("/models/")
        if FAULT != "M-UNLOAD-1":
            models.loaded.pop(name, None)
            models.urls.pop(name, None)
        self.answer(200, b'{"status": "unregistered"}')


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def load():
    try:
        models.load("", f"{ML}/model")
    except Exception as error:
        print(error, file=sys.stderr)
        if FAULT != "P-FAIL-1":
            os._exit(1)
    state["ready"] = True


def serve():
    careful("serve")
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", 8080)) if FAULT != "I-PORT-1" else 8080
    host = "127.0.0.1" if FAULT == "P-READY-1" else ""
    server = Server((host, port), Call)
    threading.Thread(target=load, daemon=True).start()

    def stop(*_):
        if FAULT == "G-SERVE-1":
            return
        threading.Thread(target=drain, daemon=True).start()

    def drain():
        server.shutdown()
        while state["calls"] and FAULT != "G-SERVE-2":
            time.sleep(0.1)
        time.sleep(0.3)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    threading.Event().wait()


def main():
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "train" and FAULT != "E-TRAIN-1":
        return train()
    if verb == "serve" and FAULT != "E-SERVE-1":
        return serve()
    print(f"{shlex.quote(verb)} is neither train nor serve", file=sys.stderr)
    return 0 if FAULT == "E-OTHER-1" else 127


sys.exit(main())
