import os

line = b"epoch 12 step 34567 loss 0.123456789 accuracy 0.987654321\n"
os.write(2, b"<<<\n" + os.environ["BEFORE"].encode())
for _ in range(int(os.environ["LINES"])):
    os.write(2, line)
os.write(2, b">>>\n")
