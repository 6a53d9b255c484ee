"""A language model with a LoRA adapter: the adapter's own plane, and that of all weights. Needs peft and transformers.

    python examples/lora.py                                        trains both (seconds), writes lora.pt
    python plot_surface.py --model examples/lora.py:net --model_file lora.pt --dataset examples/lora.py:data \\
        --x=-1:1:21 --y=-1:1:21 --xnorm filter --ynorm filter --xignore biasbn --yignore biasbn --params lora_ --plot
    python plot_surface.py ...                                     the same without --params: all weights move

The kind of figure is that of Li et al., *Flat-LoRA: Low-Rank Adaptation over a Flat Loss Landscape*, ICML 2025: what is
flat for the adapter may be sharp for all weights. There large models are moved along random directions of the merged
weights; here a GPT-2 of two layers has learned to count upwards and is adapted to count downwards, and base and adapter
move as the separate tensors that they are. The loss is the network's own, so no measure is needed.
"""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel


def net():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=16, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    adapter = LoraConfig(r=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    return get_peft_model(GPT2LMHeadModel(config), adapter)


def data(split, step=-1):
    """16 sequences that count down, beginning anywhere."""
    start = torch.arange(16)[:, None]
    numbers = (start + step * torch.arange(12)) % 16  # (16, 12)
    return {"input_ids": numbers, "labels": numbers}


def train(model, step, parameters, steps):
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**data("train", step)).loss
        loss.backward()
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    model = net()
    base = [p for name, p in model.named_parameters() if "lora_" not in name]
    adapter = [p for name, p in model.named_parameters() if "lora_" in name]
    for parameter in base:
        parameter.requires_grad_()
    with model.disable_adapter():
        print(f"loss of the base, counting up: {train(model, 1, base, 60):.3f}")
    print(f"loss with the adapter, counting down: {train(model, -1, adapter, 120):.3f}")
    torch.save(model.state_dict(), sys.argv[1] if len(sys.argv) > 1 else "lora.pt")
