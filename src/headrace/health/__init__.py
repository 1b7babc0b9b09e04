"""How the server, the way to it and this process are: measured without harm, told truly, with what to do."""
