package main

import (
	"compress/gzip"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"strings"
)

// packedLicenses is the licence of Homeroom and of everything that is linked into
// it, compressed because the binary carries it everywhere. TestLicenses makes it.
//
//go:embed docs/licenses.gz
var packedLicenses string

// licensesText unpacks the licences.
func licensesText() (string, error) {
	unpacked, err := gzip.NewReader(strings.NewReader(packedLicenses))
	if err != nil {
		return "", fmt.Errorf("unpacking the licences: %w", err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		return "", fmt.Errorf("unpacking the licences: %w", err)
	}
	return string(text), nil
}

// runLicenses prints the licences, as those of the parts ask of a program that
// contains them.
func runLicenses(env environment, flags *flag.FlagSet, args []string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	text, err := licensesText()
	if err != nil {
		return report(env, err)
	}
	fmt.Fprint(env.stdout, text)
	return exitDone
}
