"""All that Housecall knows about the GGUF file format, in both directions.

``files`` reads and writes, ``llama`` maps the Llama family's tensors and hyperparameters,
``vocabulary`` its tokenizers, ``mixture`` says which type each tensor of a format gets.
Needs the packages ``gguf`` and ``libgguf`` of the ``train`` extra; serving does not import this.
"""
