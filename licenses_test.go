package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeLicenses has TestLicenses write what it else compares.
var writeLicenses = flag.Bool("licenses", false, "write docs/licenses.gz anew, from the module cache")

// module is what `go list` says of one that is linked into the program.
type module struct {
	Path, Version, Dir string
	Main               bool
}

// notLinked is licence files of modules that are about something else than the
// code that is linked in: what they list has an entry of its own, or is left out of
// the program.
var notLinked = map[string]bool{
	"modernc.org/memory/LICENSE-LOGO":         true,
	"modernc.org/sqlite/LICENSE-3RD-PARTY.md": true,
	"modernc.org/sqlite/LICENSE-SQLITE_VEC":   true,
}

// TestLicenses holds `homeroom licenses` against the modules that are linked into
// the program, on each kind of machine, and the licences that they bring.
func TestLicenses(t *testing.T) {
	want := licensesOf(t, linkedModules(t))
	if *writeLicenses {
		if err := os.WriteFile("docs/licenses.gz", gzipped(t, want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	code, got, complaint := runLine("licenses")
	if code != exitDone || complaint != "" {
		t.Fatalf("homeroom licenses: exit code %d, %s", code, complaint)
	}
	if got != want {
		t.Errorf("docs/licenses.gz is not what the modules bring: run `go test -run TestLicenses . -licenses`, then look at `homeroom licenses`")
	}
}

// linkedModules lists the modules of the build, by path.
func linkedModules(t *testing.T) []module {
	t.Helper()
	linked := map[string]module{}
	for _, arch := range []string{"amd64", "386", "arm", "arm64", "riscv64"} {
		list := exec.Command("go", "list", "-deps", "-json=Module", ".")
		list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		out, err := list.Output()
		if err != nil {
			t.Fatalf("%v: %v", list, err)
		}
		packages := json.NewDecoder(bytes.NewReader(out))
		for {
			var p struct{ Module *module }
			if err := packages.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if p.Module != nil && !p.Module.Main {
				linked[p.Module.Path] = *p.Module
			}
		}
	}
	var modules []module
	for _, m := range linked {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return modules
}

// licensesOf is the text of `homeroom licenses`: what is in the program, then each
// licence once, below the names of all that are under it.
func licensesOf(t *testing.T, modules []module) string {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	list.WriteString("Homeroom is free software under the MIT licence, the first one below. This program\n" +
		"contains, under their own licences, the Go runtime and standard library and\n\n")
	under, order := map[string][]string{}, []string{}
	add := func(name, file string) {
		text := readLicense(t, file)
		if under[text] == nil {
			order = append(order, text)
		}
		if !slices.Contains(under[text], name) {
			under[text] = append(under[text], name)
		}
	}
	add("Homeroom", "LICENSE")
	add("Go", filepath.Join(strings.TrimSpace(string(goroot)), "LICENSE"))
	for _, m := range modules {
		fmt.Fprintf(&list, "    %s %s\n", m.Path, m.Version)
		for _, file := range licenseFiles(t, m) {
			add(m.Path, file)
		}
	}
	for _, text := range order {
		fmt.Fprintf(&list, "\n%s\n%s\n\n%s", strings.Repeat("=", 80), strings.Join(under[text], ", "), text)
	}
	return list.String()
}

// licenseFiles lists the files of a module that have a licence of linked code; none is a
// failure.
func licenseFiles(t *testing.T, m module) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "COPYING*", "NOTICE*"} {
		found, _ := filepath.Glob(filepath.Join(m.Dir, pattern)) // fails for bad patterns only
		files = append(files, found...)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return notLinked[m.Path+"/"+filepath.Base(file)] })
	if len(files) == 0 {
		t.Fatalf("%s has no licence in %s", m.Path, m.Dir)
	}
	return files
}

// readLicense reads a licence, without white space that makes no difference.
func readLicense(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \t")
	}
	return strings.Join(lines, "\n") + "\n"
}

// gzipped compresses a text.
func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
