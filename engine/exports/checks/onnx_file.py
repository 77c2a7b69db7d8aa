"""Run as a script, with onnxruntime and numpy: what does an ONNX file compute?

    python -I onnx_file.py compact.onnx given.npz found.npz NAMES THREADS

NAMES is JSON: names of the inputs, names of the outputs, and the number of cases. Arrays are named
`<case>/<name>`.
"""

import json
import sys

import numpy as np
import onnxruntime


def _main(model: str, given: str, found: str, names: str, threads: str) -> None:
    inputs, outputs, cases = json.loads(names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # What the graph does not need, the exporter leaves out.
    taken = {one.name for one in session.get_inputs()}
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    with np.load(given) as stored:
        for at in range(cases):
            feed = {name: stored[f"{at}/{name}"] for name in inputs if name in taken}
            made = session.run(outputs, feed)
            for name, array in zip(outputs, made, strict=True):
                arrays[f"{at}/{name}"] = np.asarray(array)
    np.savez(found, **arrays)  # type: ignore[arg-type]  # no name is an option of savez


if __name__ == "__main__":
    _main(*sys.argv[1:6])
