"""The commands of `oiab`. What a command needs is imported when it runs, so that `oiab --help` is quick."""
