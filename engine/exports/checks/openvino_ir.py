"""Run as a script, with openvino and numpy: what does a model in OpenVINO's IR compute?

    python -I openvino_ir.py compact.xml given.npz found.npz NAMES THREADS

NAMES is JSON: names of the inputs, names of the outputs, and the number of cases. Arrays are named
`<case>/<name>`.
"""

import json
import sys

# Not to be imported by openvino: it reports to its maker that a model was run.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import openvino  # noqa: E402


def _main(model: str, given: str, found: str, names: str, threads: str) -> None:
    inputs, outputs, cases = json.loads(names)
    # Processors with instructions for bfloat16 would compute in it otherwise.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": int(threads)}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    # What the graph does not need, a converter may leave out.
    taken = {name for one in compiled.inputs for name in one.get_names()}
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    with np.load(given) as stored:
        for at in range(cases):
            feed = {name: stored[f"{at}/{name}"] for name in inputs if name in taken}
            made = compiled(feed)
            for name in outputs:
                arrays[f"{at}/{name}"] = np.array(made[name])
    np.savez(found, **arrays)  # type: ignore[arg-type]  # no name is an option of savez


if __name__ == "__main__":
    _main(*sys.argv[1:6])
