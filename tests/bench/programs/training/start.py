import time

print("first line", flush=True)
time.sleep(0.2)
