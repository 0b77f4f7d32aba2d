package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTestsInDocuments fails when a document sends its reader to a test that is not
// there any more. A name may be the beginning of several, as with -run.
func TestTestsInDocuments(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		tests.Write(code)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	for _, file := range append(files, "README.md", "CONTRIBUTING.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range name.FindAllString(string(text), -1) {
			if !strings.Contains(tests.String(), "\nfunc "+test) {
				t.Errorf("%s speaks of %s, which is not there", file, test)
			}
		}
	}
}

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

// TestArchitecture holds the table of files in docs/ARCHITECTURE.md against the folder:
// it has every code file of the root and every folder with Go, and nothing else. The page
// stays a page.
func TestArchitecture(t *testing.T) {
	page, err := os.ReadFile("docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(page), "\n"); lines > 120 {
		t.Errorf("docs/ARCHITECTURE.md has %d lines; it is to be one page, of 120", lines)
	}
	_, table, _ := strings.Cut(string(page), "\n## Files\n")
	listed := map[string]bool{}
	for _, row := range strings.Split(table, "\n") {
		if cells := strings.Split(row, "|"); len(cells) > 2 {
			for _, name := range regexp.MustCompile(`[\w/]+(?:\.go|/)`).FindAllString(cells[1], -1) {
				if listed[name] {
					t.Errorf("docs/ARCHITECTURE.md lists %s twice", name)
				}
				listed[name] = true
			}
		}
	}
	for name := range goFiles(t) {
		if !listed[name] {
			t.Errorf("docs/ARCHITECTURE.md does not list %s", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("docs/ARCHITECTURE.md lists %s, which is not there", name)
	}
}

// goFiles is every code file of the root, and every folder below it that has Go.
func goFiles(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		if folder := filepath.Dir(path); folder != "." {
			found[folder+"/"] = true
		} else if !strings.HasSuffix(path, "_test.go") {
			found[path] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
