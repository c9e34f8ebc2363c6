"""Counts which words follow each word in the texts in the channel `train`."""

import json
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

follows = defaultdict(list)
for path in sorted(Path(os.environ["SM_CHANNEL_TRAIN"]).glob("*.txt")):
    words = path.read_text().split()
    for word, following in pairwise(words):
        follows[word].append(following)
Path(os.environ["SM_MODEL_DIR"], "model.json").write_text(json.dumps(follows))
print(f"{len(follows)} words")
