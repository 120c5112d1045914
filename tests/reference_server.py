"""A test double of TensorFlow Serving: its protocols, flags and rules for versions, one Python process, no batching.

Made from the official protos and the documented behaviour; shares no code with hetmorph. Not meant for any other use.

    python tests/reference_server.py --port=8500 --rest_api_port=8501 --model_config_file=models.config
"""

import argparse
import http.server
import json
import re
import threading
import time
from concurrent import futures
from pathlib import Path
from urllib.parse import unquote

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, text_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

State = get_model_status_pb2.ModelVersionStatus.State
WARMUP = "assets.extra/tf_serving_warmup_requests"


class Refused(Exception):
    """An answer other than OK: a grpc.StatusCode and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


class Servable:
    """One loaded version."""

    def __init__(self, path):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))
        self.signatures = meta_graph.signature_def
        self.records = 0
        for record in tf.compat.v1.io.tf_record_iterator(str(path / WARMUP)) if (path / WARMUP).exists() else ():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            self.predict(request)
            self.records += 1

    def predict(self, request):
        name = request.model_spec.signature_name or "serving_default"
        if name not in self.signatures:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        if set(request.inputs) != set(signature.inputs):
            raise invalid(
                f"input size does not match signature: {len(request.inputs)}!={len(signature.inputs)}. "
                f"Sent: {{{','.join(sorted(request.inputs))}}}, required: {{{','.join(sorted(signature.inputs))}}}."
            )
        feed = {}
        for i, (key, info) in enumerate(sorted(signature.inputs.items())):
            value = request.inputs[key]
            if value.dtype != info.dtype:
                raise invalid(
                    f"Expects arg[{i}] to be {type_name(info.dtype)} but {type_name(value.dtype)} is provided"
                )
            feed[info.name] = tf.make_ndarray(value)
        wanted = list(request.output_filter) or list(signature.outputs)
        try:
            outputs = self.session.run({key: signature.outputs[key].name for key in wanted}, feed)
        except tf.errors.OpError as error:
            # the headline is added by Python
            raise Refused(
                grpc_code(error.error_code), error.message.removeprefix("Graph execution error:\n\n")
            ) from error
        except ValueError as error:  # what the C++ session says as INVALID_ARGUMENT
            raise invalid(str(error)) from error
        return outputs


def type_name(dtype):
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def grpc_code(number):
    return next(code for code in grpc.StatusCode if code.value[0] == number)


class Model:
    """Versions of one model: as many as the policy wants are loaded, new ones before old ones go."""

    def __init__(self, config):
        self.config, self.loaded, self.states = config, {}, {}

    def aspired(self):
        folder = Path(self.config.base_path)
        present = sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())
        policy = self.config.model_version_policy
        kind = policy.WhichOneof("policy_choice") or "latest"
        if kind == "all":
            return present
        if kind == "specific":
            return [v for v in policy.specific.versions if v in present]
        return present[-(policy.latest.num_versions or 1) :]

    def update(self):
        wanted = self.aspired()
        for version in wanted:
            if version in self.loaded or self.states.get(version, ("",))[0] == "END":
                continue
            self.states[version] = ("LOADING", "")
            try:
                servable = Servable(Path(self.config.base_path, str(version)))
            except Exception as error:  # noqa: BLE001
                self.states[version] = ("END", str(error))
                continue
            self.loaded = {**self.loaded, version: servable}  # replaced, never changed: requests read it meanwhile
            self.states[version] = ("AVAILABLE", "")
        for version in set(self.loaded) - set(wanted):
            if not set(wanted) & set(self.loaded):
                break  # keeps one available
            self.loaded = {v: s for v, s in self.loaded.items() if v != version}
            self.states[version] = ("END", "")


class Server:
    def __init__(self, options):
        self.options, self.models, self.labels = options, {}, {}
        self.reload()

    def reload(self):
        """Labels first and models after, as in ServerCore::ReloadConfig; a bad label stops both."""
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse(Path(self.options.model_config_file).read_text(), config)
        labels = {}
        for model in config.model_config_list.config:
            states = self.models[model.name].states if model.name in self.models else {}
            for label, version in model.version_labels.items():
                before = self.labels.get(model.name, {}).get(label, version)
                new = self.options.allow_version_labels_for_unavailable_models and before == version
                if not new and states.get(version, ("",))[0] != "AVAILABLE":
                    raise Refused(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, which is not currently "
                        "available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        self.labels = labels
        for model in config.model_config_list.config:
            self.models.setdefault(model.name, Model(model)).config = model
            self.models[model.name].update()

    def poll(self):
        while True:
            time.sleep(self.options.model_config_file_poll_wait_seconds)
            try:
                self.reload()
            except (Refused, text_format.ParseError, OSError) as error:
                print(f"failed to reload: {error}", flush=True)

    def find(self, spec):
        model = self.models.get(spec.name)
        loaded = model.loaded if model else {}
        version = max(loaded, default=None)
        if spec.HasField("version"):
            version = spec.version.value
        elif spec.version_label:
            version = self.labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        if version not in loaded:
            asked = f"Specific({spec.name}, {version})" if version is not None else f"Latest({spec.name})"
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
        return version, loaded[version]

    def predict(self, request):
        version, servable = self.find(request.model_spec)
        outputs = servable.predict(request)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def metadata(self, spec):
        version, servable = self.find(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(servable.signatures))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, spec):
        model = self.models.get(spec.name)
        states = dict(model.states) if model else {}
        if spec.HasField("version"):  # a label changes nothing here, as in the original
            states = {v: s for v, s in states.items() if v == spec.version.value}
        if not states:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, message) in states.items():
            added = response.model_version_status.add(version=version, state=State.Value(state))
            added.status.error_code, added.status.error_message = (2 if message else 0), message
        return response

    def metrics(self):
        lines = []
        for model in self.models.values():
            for version, servable in model.loaded.items():
                where = f'model_path="{model.config.base_path}/{version}",status="OK"'
                lines.append(f":tensorflow:serving:model_warmup_records_read{{{where}}} {servable.records}")
        return "\n".join(lines) + "\n"


# gRPC


def answering(function):
    def method(self, request, context):
        try:
            return function(self.server, request)
        except Refused as refused:
            context.abort(refused.code, str(refused))

    return method


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self.server = server

    Predict = answering(lambda server, request: server.predict(request))
    GetModelMetadata = answering(lambda server, request: server.metadata(request.model_spec))


class Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self.server = server

    GetModelStatus = answering(lambda server, request: server.status(request.model_spec))


# REST

POST = re.compile(r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:predict")
GET = re.compile(r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(/metadata)?")
HTTP_CODES = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}


def handler_of(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or either side waits for the other

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/monitoring/prometheus/metrics":
                return self.reply(200, server.metrics())
            self.answer(lambda: self.look_up(GET.fullmatch(self.path)))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(lambda: self.predict(POST.fullmatch(self.path), body))

        def answer(self, function):
            try:
                code, content = 200, function()
            except Refused as refused:
                code, content = HTTP_CODES.get(refused.code.name, 500), {"error": str(refused)}
            self.reply(code, json.dumps(content))

        def reply(self, code, text):
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def look_up(self, match):
            spec = self.spec(match)
            if not match[4]:
                names = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
                return json_format.MessageToDict(server.status(spec), **names)
            response = server.metadata(spec)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            response.metadata["signature_def"].Unpack(signatures)
            written = json_format.MessageToDict(signatures, preserving_proto_field_name=True)
            model_spec = {"name": spec.name, "version": str(response.model_spec.version.value)}
            return {"model_spec": model_spec, "metadata": {"signature_def": written}}

        def predict(self, match, body):
            request = predict_pb2.PredictRequest()
            request.model_spec.CopyFrom(self.spec(match))
            try:
                content = json.loads(body)
            except ValueError as error:
                raise invalid(f"JSON Parse error: {error}") from error
            name = content.get("signature_name") or "serving_default"
            request.model_spec.signature_name = name
            _, servable = server.find(request.model_spec)
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            infos = servable.signatures[name].inputs
            rows = "instances" in content
            values = self.columns(content, infos)
            for key, info in infos.items():
                if key not in values:
                    raise invalid(f"Missing named input: {key} in 'inputs' object.")
                request.inputs[key].CopyFrom(tf.make_tensor_proto(self.tensor(values[key], info)))
            outputs = {k: tf.make_ndarray(v) for k, v in server.predict(request).outputs.items()}
            if len(outputs) == 1:
                (only,) = outputs.values()
                return {"predictions" if rows else "outputs": only.tolist()}
            if rows:
                count = len(next(iter(outputs.values())))
                return {"predictions": [{k: v[i].tolist() for k, v in outputs.items()} for i in range(count)]}
            return {"outputs": {k: v.tolist() for k, v in outputs.items()}}

        def columns(self, content, infos):
            if "instances" in content:
                rows = content["instances"]
                if len(infos) == 1 and not isinstance(rows[0], dict):
                    return {next(iter(infos)): rows}
                if any(set(row) != set(infos) for row in rows):
                    raise invalid("Failed to process element: 0 of 'instances' list.")
                return {key: [row[key] for row in rows] for key in infos}
            if "inputs" not in content:
                raise invalid("Missing 'inputs' or 'instances' key")
            values = content["inputs"]
            return values if isinstance(values, dict) else {next(iter(infos)): values}

        def tensor(self, value, info):
            try:
                array = np.array(value)
            except ValueError as error:
                raise invalid(f"Encountered list at unexpected size: {error}") from error
            if array.dtype.kind not in "fi":
                raise invalid(f"JSON Value: Type: String is not of expected type: {type_name(info.dtype)}")
            return array.astype(tf.as_dtype(info.dtype).as_numpy_dtype)

        def spec(self, match):
            if match is None:
                raise invalid(f"Malformed request: {self.command} {self.path}")
            spec = predict_pb2.PredictRequest().model_spec
            spec.name = unquote(match[1])
            if match[2]:
                spec.version.value = int(match[2])
            if match[3]:
                spec.version_label = unquote(match[3])
            return spec

    return Handler


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--model_config_file", required=True)
    parser.add_argument("--model_config_file_poll_wait_seconds", type=float, default=1)
    parser.add_argument("--allow_version_labels_for_unavailable_models", type=lambda text: text == "true")
    parser.add_argument("--monitoring_config_file")
    parser.add_argument("--rest_api_timeout_in_ms", type=int)
    parser.add_argument("--grpc_channel_arguments", default="")
    return parser.parse_args()


def main():
    chosen = options()
    server = Server(chosen)
    channel = {"grpc.max_receive_message_length": 2**31 - 1, "grpc.max_send_message_length": 2**31 - 1}
    channel |= {k: int(v) for k, v in (item.split("=") for item in chosen.grpc_channel_arguments.split(",") if item)}
    grpc_server = grpc.server(futures.ThreadPoolExecutor(8), options=list(channel.items()))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(server), grpc_server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(server), grpc_server)
    if grpc_server.add_insecure_port(f"127.0.0.1:{chosen.port}") != chosen.port:
        raise SystemExit(f"port {chosen.port} is taken")
    grpc_server.start()
    threading.Thread(target=server.poll, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", chosen.rest_api_port), handler_of(server)).serve_forever()


if __name__ == "__main__":
    main()
