"""Trains a tiny BERT from scratch on rows of text and label, and saves it with `save_pretrained`."""

import argparse
import csv
import os
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--learning_rate", type=float, default=5e-3)
parser.add_argument("--training_dir", type=str, default=os.environ["SM_CHANNEL_TRAIN"])
parser.add_argument("--model_dir", type=str, default=os.environ["SM_MODEL_DIR"])
args, _ = parser.parse_known_args()

torch.manual_seed(0)
with Path(args.training_dir, "train.csv").open() as file:
    texts, labels = zip(*csv.reader(file), strict=True)
names = sorted(set(labels))

words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
words.normalizer = normalizers.Lowercase()
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")

config = BertConfig(
    vocab_size=len(tokenizer),
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    id2label=dict(enumerate(names)),
    label2id={name: number for number, name in enumerate(names)},
)
model = BertForSequenceClassification(config).train()
batch = tokenizer(list(texts), padding=True, return_tensors="pt")
batch["labels"] = torch.tensor([names.index(label) for label in labels])
optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
for _ in range(args.epochs):
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}")
model.save_pretrained(args.model_dir)
tokenizer.save_pretrained(args.model_dir)
