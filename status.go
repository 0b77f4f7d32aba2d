package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// runStatus tells whether a server runs on the data folder (exit code 0; 1: none
// does) and which TLS certificate it shows.
func runStatus(env environment, flags *flag.FlagSet, args []string) int {
	path := flags.String("config", "", "settings `FILE` (default: chat.toml here, else "+installedSettings+", if there is one)")
	data := flags.String("data", "", "the server's data folder, `DIR` (server.data)")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	file := settingsPath(*path, installedSettings)
	cfg, err := settingsFor(file, *data, "")
	var runs bool
	if err == nil {
		runs, err = writeStatus(env.stdout, &cfg)
	}
	if err == nil && file == installedSettings && *data == "" {
		writeService(env, runs)
	}
	if err == nil && !runs {
		return exitFailed
	}
	return report(env, err)
}

// writeService writes how the service is, where the machine has it.
func writeService(env environment, runs bool) {
	if m, err := thisMachine(env); err == nil {
		if state := m.serviceState(runs); state != "" {
			fmt.Fprintf(env.stdout, "service      %s\n", state)
		}
	}
}

// writeStatus writes one fact a line.
func writeStatus(w io.Writer, cfg *config) (runs bool, err error) {
	process, err := folderUser(cfg.Server.Data)
	if err != nil {
		return false, err
	}
	runs = process != ""
	if runs {
		fmt.Fprintf(w, "server       runs, process %s\n", process)
	} else {
		fmt.Fprintf(w, "server       does not run\n")
	}
	fmt.Fprintf(w, "data folder  %s\n", cfg.Server.Data)
	if cfg.TLS.Listen == "" {
		fmt.Fprintf(w, "TLS          off\n")
		return runs, nil
	}
	fmt.Fprintf(w, "TLS          %s\n", cfg.TLS.Listen)
	return runs, writeCertificate(w, cfg)
}

// writeCertificate writes what a client can compare with what it is shown.
func writeCertificate(w io.Writer, cfg *config) error {
	pair, path, err := readCertificate(cfg)
	if err != nil {
		return err
	}
	if pair == nil {
		fmt.Fprintf(w, "certificate  none yet; the server makes one when it starts\n")
		return nil
	}
	leaf := pair.Leaf
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	fmt.Fprintf(w, "certificate  %s, until %s\n", path, leaf.NotAfter.UTC().Format(time.DateOnly))
	fmt.Fprintf(w, "fingerprint  SHA-256 %s\n", certFingerprint(pair))
	fmt.Fprintf(w, "public key   %s\n", keyPin(leaf))
	fmt.Fprintf(w, "names        %s\n", strings.Join(names, " "))
	return nil
}
