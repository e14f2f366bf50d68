"""The engine without a server: one engine process under a Python program. It knows no HTTP."""
