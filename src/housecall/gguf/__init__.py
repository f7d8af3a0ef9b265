"""All that Housecall knows about the GGUF file format, in both directions.

``header`` holds a file's header to the file's bounds; it needs the standard library only, and is
all that serving imports of this. The rest needs the packages of the ``train`` extra: ``files``
reads and writes, ``llama`` maps the Llama family's tensors and hyperparameters, ``vocabulary`` its
tokenizers, ``mixture`` says which type each tensor of a format gets, ``kernels`` quantises rows,
and ``convert`` puts them together.
"""
