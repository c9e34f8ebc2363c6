"""Sends prompts in a session: talk.py URL PROMPT..."""

import sys

from websockets.sync.client import connect

url, *prompts = sys.argv[1:]
with connect(url) as session:
    for prompt in prompts:
        session.send(prompt)
        while word := session.recv():
            print(word, end=" ", flush=True)
        print()
