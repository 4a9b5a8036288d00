"""One file per migration. Names are integers; never change a file that was released."""
