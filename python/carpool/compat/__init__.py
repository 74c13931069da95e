"""Front doors of other batching libraries: their names, parameters and behaviour over carpool's batcher.

Each module stands for one library, so that a program moves by one changed import. They use what `carpool`
exports and nothing else of it.
"""
