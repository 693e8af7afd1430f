"""What a Hugging Face Space with ZeroGPU wants to see: a function that asks for a GPU, decorated as the program starts.

Import this before Gradio and PyTorch, as `spaces` demands. Elsewhere, where `spaces` is not installed, it does nothing.
The page itself draws on the CPU there (:func:`app.settings.hosted`): a step of the network takes less time than a GPU
takes to be granted, and requests share their steps in one thread of one process, which cannot move into the process
that has the GPU. So nobody calls the function; without one a ZeroGPU Space would not start.
"""

from __future__ import annotations

try:
    import spaces
except ImportError:
    spaces = None

if spaces is not None:

    @spaces.GPU
    def on_gpu() -> str:
        """The GPU that was granted."""
        import torch  # noqa: PLC0415 (after `spaces`)

        return str(torch.cuda.get_device_name())
