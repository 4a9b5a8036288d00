# Lists the targets of a Makefile by group, folded at 80 columns: `make help`. COLOUR=1 prints the names bold.
BEGIN { FS = ":.*## "; width = 80; indent = 19 }
/^# -+ / { group = $0; sub(/^# -+ /, "", group) }
/^[a-z-]+:.*## / {
  if (group != "") { printf "%s%s:\n", seen++ ? "\n" : "", toupper(substr(group, 1, 1)) substr(group, 2); group = "" }
  name = sprintf("%-16s", $1)
  if (colour) name = "\033[1m" name "\033[0m"
  line = "  " name " "; column = indent
  count = split($2, words, " ")
  for (i = 1; i <= count; i++) {
    if (column > indent && column + 1 + length(words[i]) > width) { printf "%s\n", line; line = sprintf("%" indent "s", ""); column = indent }
    line = line (column > indent ? " " : "") words[i]
    column += length(words[i]) + (column > indent ? 1 : 0)
  }
  printf "%s\n", line
}
