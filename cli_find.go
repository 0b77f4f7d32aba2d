package main

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// runFind lists the servers on the network; exit code 1: there are none.
func runFind(env environment, flags *flag.FlagSet, args []string) int {
	wait := flags.Duration("time", 3*time.Second, "how long to `WAIT` for answers")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	if *wait <= 0 {
		fmt.Fprintf(env.stderr, "homeroom find: -time must be more than 0, like 3s\n")
		return exitUsage
	}
	f, err := find(env.ctx, *wait)
	switch {
	case err != nil:
		fmt.Fprintf(env.stderr, "homeroom: %v\n", oneLine(err))
	case !f.any():
		fmt.Fprintf(env.stderr, "homeroom: no server has answered on this network within %v. A server answers where its settings have find.announce = true "+
			"and it listens to the network; guest Wi-Fi and firewalls (UDP port %d) may keep its answer away. If you know its address, use that.\n", *wait, mdnsPort)
	default:
		if err := f.write(env.stdout); err != nil {
			fmt.Fprintf(env.stderr, "homeroom: %v\n", oneLine(err))
			return exitFailed
		}
		return exitDone
	}
	return exitFailed
}

// write writes a line for each server.
func (f *finder) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tHOST\tPORT\tTLS\tVERSION\tADDRESSES")
	slices.SortFunc(f.servers, func(a, b *foundServer) int { return strings.Compare(a.instance.String(), b.instance.String()) })
	for _, s := range f.servers {
		if s.host.Length == 0 {
			continue
		}
		name, _, _ := strings.Cut(s.instance.String(), ".")
		addrs := slices.Clone(f.addresses(s.host))
		slices.SortFunc(addrs, netip.Addr.Compare)
		shown := make([]string, len(addrs))
		for i, ip := range addrs {
			shown[i] = ip.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", visible(name), visible(shownName(s.host)), s.port,
			s.value("tls"), s.value("version"), dash(strings.Join(shown, " ")))
	}
	return table.Flush()
}

// any tells whether a server was found that tells where it is.
func (f *finder) any() bool {
	return slices.ContainsFunc(f.servers, func(s *foundServer) bool { return s.host.Length > 0 })
}

// value is what a server's text says for a key, such that it does nothing to a
// terminal.
func (s *foundServer) value(key string) string {
	for _, text := range s.text {
		k, v, _ := strings.Cut(text, "=")
		if strings.EqualFold(k, key) {
			shown := []rune(visible(v))
			return dash(string(shown[:min(len(shown), maxFoundText)]))
		}
	}
	return "-"
}

// dash stands for what is empty.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

const maxFoundText = 40 // characters of a server's version
