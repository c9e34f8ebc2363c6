"""Sends rows of a CSV file to a running server, and compares the predictions with the first column.

usage: ask.py URL FILE ROWS
"""

import sys
import urllib.request

url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path) as file:
    rows = [line.strip().split(",") for line in file][1 : count + 1]
body = "\n".join(",".join(features) for _, *features in rows)
request = urllib.request.Request(
    f"{url}/invocations", body.encode(), {"Content-Type": "text/csv", "Accept": "text/csv"}
)
with urllib.request.urlopen(request) as response:
    answers = [float(line) for line in response.read().split()]

right = 0
print("  predicted           truth")
for (truth, *_), answer in zip(rows, answers, strict=True):
    predicted = "benign" if answer >= 0.5 else "malignant"
    actual = "benign" if float(truth) else "malignant"
    right += predicted == actual
    print(f"  {predicted:9}  {answer:6.1%}   {actual:9}  {'' if predicted == actual else '  wrong'}")
print(f"  {right} of {len(rows)} right")
