package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"homeroom/mdns"
)

// maxFoundText is how many characters are shown of a server's text.
const maxFoundText = 40

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
	ctx, cancel := context.WithTimeout(env.ctx, *wait)
	defer cancel()
	found, err := mdns.Browse(ctx, chatService)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no server has answered on this network within %v. A server answers where its settings have find.announce = true "+
			"and it listens to the network; guest Wi-Fi and firewalls (UDP port %d) may keep its answer away; if you know its address, use that", *wait, mdns.Port)
	}
	if err == nil {
		err = writeFound(env.stdout, found)
	}
	return report(env, err)
}

// writeFound writes a line for each server. Its own texts are quoted, so that they do
// nothing to a terminal.
func writeFound(w io.Writer, found []mdns.Entry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tHOST\tPORT\tTLS\tVERSION\tADDRESSES")
	for _, e := range found {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", visible(e.Instance), visible(e.Host), e.Port,
			foundValue(e.Text, "tls"), foundValue(e.Text, "version"), joinedAddresses(e.Addrs))
	}
	return table.Flush()
}

// joinedAddresses is a host's addresses, or a dash.
func joinedAddresses(addrs []netip.Addr) string {
	shown := make([]string, len(addrs))
	for i, ip := range addrs {
		shown[i] = ip.String()
	}
	return dash(strings.Join(shown, " "))
}

// foundValue is the value of a key in a server's text, or a dash.
func foundValue(text []string, key string) string {
	for _, pair := range text {
		k, v, _ := strings.Cut(pair, "=")
		if strings.EqualFold(k, key) {
			shown := []rune(visible(v))
			return dash(string(shown[:min(len(shown), maxFoundText)]))
		}
	}
	return "-"
}

// dash replaces an empty text.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
