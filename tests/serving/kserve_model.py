"""A model of two lines on KServe, a server of its own whose V1 protocol is TensorFlow Serving's row form."""

import argparse

import kserve
import numpy as np


class Halves(kserve.Model):
    """displacement = moving - fixed along the first axis, moved = moving / 2; refuses negative voxels."""

    def load(self):
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        answers = []
        for row in payload["instances"]:
            moving, fixed = (np.float32(row[name]) for name in ("moving", "fixed"))
            if moving.min() < 0:
                raise kserve.errors.InvalidInput("negative voxels")
            along = np.concatenate([moving - fixed, 0 * moving], -1)
            answers.append({"displacement": along.tolist(), "moved": (moving / 2).tolist()})
        return {"predictions": answers}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    arguments, _ = parser.parse_known_args()
    model = Halves("heart")
    model.load()
    kserve.ModelServer(http_port=arguments.http_port, enable_grpc=False).start([model])
