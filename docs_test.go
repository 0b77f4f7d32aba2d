package main

import (
	"os"
	"strings"
	"testing"
)

// TestManPage holds the man page against the commands that there are.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("docs/homeroom.1")
	if err != nil {
		t.Fatal(err)
	}
	_, commands, _ := strings.Cut(string(page), ".SH COMMANDS")
	commands, _, _ = strings.Cut(commands, ".SH EXIT STATUS")
	listed := map[string]bool{}
	for _, line := range strings.Split(commands, "\n") {
		if strings.HasPrefix(line, ".B") {
			for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(` ",[]`, r) }) {
				listed[word] = true
			}
		}
	}
	for _, c := range subcommands() {
		if !listed[c.name] {
			t.Errorf("docs/homeroom.1 does not have %s", c.name)
		}
	}
}
