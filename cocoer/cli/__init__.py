"""The command `cocoer COMMAND`: one module a command, which parses, calls one function and prints."""
