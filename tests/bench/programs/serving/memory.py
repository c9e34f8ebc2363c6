import glob
import json
import os

found = {"Private": 0, "Pss_Anon": 0}
for path in glob.glob("/proc/[0-9]*/smaps_rollup"):
    if int(path.split("/")[2]) != os.getpid():
        try:
            with open(path) as file:
                lines = file.readlines()
        except OSError:
            continue  # the process has exited meanwhile
        for kind in found:
            found[kind] += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))
print(json.dumps(found))
