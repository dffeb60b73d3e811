"""The `kekkai` command. One module a group of commands, each imported when it is called."""
