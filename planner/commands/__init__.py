"""The commands of ``blinkplan``, one file each: ``register(subparsers)`` and ``run(args) -> exit status``."""
