"""Write the values that PyTorch computes for each case of `network_cases`: `python -m tests.store_networks`.

It needs PyTorch; with the values stored, `tests/test_networks.py` compares without it.
"""

import datetime
import json
from pathlib import Path

FILE = Path(__file__).parent / "stored" / "networks.json"


def main() -> None:
    import torch

    from tests.network_cases import CASES, fingerprint
    from tests.network_twins import peer_values

    header = {
        "command": "python -m tests.store_networks",
        "pytorch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "values": "by case and output: its first five elements, its products with three fixed vectors",
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in header.items()]
    for name in CASES:
        outputs = [[float(f"{x:.8g}") for x in fingerprint(output)] for output in peer_values(name)]
        lines.append(f"  {json.dumps(name)}: {json.dumps(outputs)}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
