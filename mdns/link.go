package mdns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxPacket    = 9000 // bytes (RFC 6762, 17)
	maxPackets   = 500  // taken in a second, of each socket; the system drops the rest
	maxLinkAddrs = 8    // announced on a link, so that a packet holds them
)

// sockets is the port of multicast DNS: others on this machine may use it too.
type sockets struct {
	log     *slog.Logger
	conns   [2]*net.UDPConn // by IPv4 and IPv6; nil: there is none
	packets chan datagram
	done    chan struct{} // closed when nobody takes packets any more
	readers sync.WaitGroup
}

// group is the address of multicast DNS.
func group(v6 bool) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(netip.MustParseAddr("ff02::fb"), Port)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("224.0.0.251"), Port)
}

// familyIndex is 1 for IPv6.
func familyIndex(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// openSockets opens the port by IPv4 and IPv6, and fails where neither can be had.
func openSockets(log *slog.Logger) (*sockets, error) {
	s := &sockets{log: log, packets: make(chan datagram), done: make(chan struct{})}
	var failed error
	for i, network := range []string{"udp4", "udp6"} {
		config := net.ListenConfig{Control: setMulticast(i == 1)}
		conn, err := config.ListenPacket(context.Background(), network, fmt.Sprintf(":%d", Port))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("opening port %d: %w", Port, err))
			continue
		}
		s.conns[i] = conn.(*net.UDPConn)
	}
	if s.conns[0] == nil && s.conns[1] == nil {
		return nil, failed
	}
	for i, conn := range s.conns {
		if conn != nil {
			s.readers.Go(func() { s.read(conn, i == 1) })
		}
	}
	return s, nil
}

// setMulticast has a socket share its port, tell of each packet where it came in,
// and send such as multicast DNS wants them.
func setMulticast(v6 bool) func(string, string, syscall.RawConn) error {
	type option struct{ level, name, value int }
	options := []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1}, {unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255}, {unix.IPPROTO_IP, unix.IP_TTL, 255},
	}
	if v6 {
		options = append(options[:2],
			option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}, option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0},
			option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255}, option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255})
	}
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			for _, o := range options {
				err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value)
				if failed == nil && !errors.Is(err, unix.ENOPROTOOPT) { // old kernels lack some, and it works without
					failed = err
				}
			}
		})
		return errors.Join(err, failed)
	}
}

// close ends the readers and gives the port back.
func (s *sockets) close() {
	close(s.done)
	for _, conn := range s.conns {
		if conn != nil {
			conn.Close()
		}
	}
	s.readers.Wait()
}

// read passes packets on, so many in a second.
func (s *sockets) read(conn *net.UDPConn, v6 bool) {
	buf, oob := make([]byte, maxPacket), make([]byte, 128)
	taken, second := 0, time.Now()
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		now := time.Now()
		if now.Sub(second) > time.Second {
			taken, second = 0, now
		}
		if taken++; err != nil || taken > maxPackets {
			if !s.sleep(second.Add(time.Second).Sub(now)) {
				return
			}
			continue
		}
		p := datagram{index: inInterface(oob[:oobn], v6), v6: v6, data: slices.Clone(buf[:n])}
		p.from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		select {
		case s.packets <- p:
		case <-s.done:
			return
		}
	}
}

// sleep waits, and reports whether packets are still wanted.
func (s *sockets) sleep(t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.done:
		return false
	}
}

// inInterface is the interface that a packet came in by; 0 where it is not told.
func inInterface(oob []byte, v6 bool) int {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range all {
		switch {
		case !v6 && m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return int(binary.NativeEndian.Uint32(m.Data))
		case v6 && m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return int(binary.NativeEndian.Uint32(m.Data[16:]))
		}
	}
	return 0
}

// send sends a packet over a link; to everybody, if to is not valid. Lost
// packets are asked for again, so an error does not matter.
func (s *sockets) send(l link, to netip.AddrPort, packet []byte) {
	conn := s.conns[familyIndex(l.v6)]
	oob := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(l.index)})
	if l.v6 {
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(l.index)})
	}
	if !to.IsValid() {
		to = group(l.v6)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, _, err := conn.WriteMsgUDPAddrPort(packet, oob, to); err != nil {
		s.log.Debug("cannot send to the network", "interface", l.name, "error", err)
	}
}

// links is the machine's interfaces that are networks, joined to listen on, with
// those of its addresses that wanted takes.
func (s *sockets) links(wanted func(netip.Addr) bool) (links []link) {
	interfaces, err := net.Interfaces()
	if err != nil {
		s.log.Warn("cannot look at the network interfaces", "error", err)
	}
	for _, i := range interfaces {
		const must, not = net.FlagUp | net.FlagMulticast, net.FlagLoopback | net.FlagPointToPoint
		nets := netsOf(i)
		addrs := announcedAddrs(nets, wanted)
		if i.Flags&(must|not) != must || len(addrs) == 0 {
			continue
		}
		for _, v6 := range []bool{false, true} {
			has := slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
			if has && s.join(i.Index, v6) {
				links = append(links, link{index: i.Index, name: i.Name, v6: v6, addrs: addrs, nets: nets})
			}
		}
	}
	return links
}

// join has a socket receive the group on an interface, unless it does already.
func (s *sockets) join(index int, v6 bool) bool {
	conn := s.conns[familyIndex(v6)]
	if conn == nil {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	group := group(v6).Addr()
	var failed error
	err = raw.Control(func(fd uintptr) {
		if v6 {
			failed = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
				&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(index)})
		} else {
			failed = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
				&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)})
		}
	})
	return err == nil && (failed == nil || errors.Is(failed, unix.EADDRINUSE))
}

// netsOf is an interface's addresses that are in use, each with its network.
func netsOf(i net.Interface) (nets []netip.Prefix) {
	list := inet6List()
	addrs, _ := i.Addrs() // an interface that has just gone has none
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !isTentative(p.Addr(), list) {
			nets = append(nets, p)
		}
	}
	slices.SortFunc(nets, netip.Prefix.Compare)
	return nets
}

// announcedAddrs is those of an interface's addresses by which others shall reach
// this machine. IPv6's addresses for one link only are for where there are no others.
func announcedAddrs(nets []netip.Prefix, wanted func(netip.Addr) bool) (addrs []netip.Addr) {
	list := inet6List()
	var only []netip.Addr
	for _, p := range nets {
		switch ip := p.Addr(); {
		case !wanted(ip) || ip.IsLoopback() || isFleeting(ip, list):
		case ip.Is6() && ip.IsLinkLocalUnicast():
			only = append(only, ip)
		default:
			addrs = append(addrs, ip)
		}
	}
	if !slices.ContainsFunc(addrs, netip.Addr.Is6) {
		addrs = append(addrs, only...)
	}
	return addrs[:min(len(addrs), maxLinkAddrs)]
}

// watchInterfaces opens a netlink socket on which the kernel tells of every change to
// the machine's interfaces and addresses. Waiting for it costs nothing.
func watchInterfaces() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watching the network interfaces: %w", err)
	}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watching the network interfaces: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// tellChanges signals each message of the kernel on changed, until the file is
// closed. The messages are not looked at: the interfaces are.
func tellChanges(kernel *os.File, changed chan<- struct{}) {
	buf := make([]byte, 16<<10)
	for {
		_, err := kernel.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // it told more than there is room for
			return
		}
		select {
		case changed <- struct{}{}:
		default: // a word is waiting
		}
	}
}

// inet6List is the kernel's list of this machine's IPv6 addresses; "" where there is
// no IPv6.
func inet6List() string {
	list, _ := os.ReadFile("/proc/net/if_inet6")
	return string(list)
}

// Fleeting reports whether an address of this machine is one of those that IPv6
// changes daily for privacy: nobody should be told to connect to it.
func Fleeting(ip netip.Addr) bool { return isFleeting(ip, inet6List()) }

// isFleeting reports whether a list like /proc/net/if_inet6 shows an address as
// temporary (IPv6 privacy): such ones change daily, and nobody connects to them.
func isFleeting(ip netip.Addr, list string) bool {
	const temporary = 0x01
	flags, name := inet6Flags(ip, list)
	return flags&temporary != 0 && name != "lo"
}

// isTentative reports whether a list like /proc/net/if_inet6 shows an address as not
// usable yet, or never: somebody else may have it.
func isTentative(ip netip.Addr, list string) bool {
	const tentative, failed = 0x40, 0x08
	flags, _ := inet6Flags(ip, list)
	return flags&(tentative|failed) != 0
}

// inet6Flags looks an IPv6 address up in a list like /proc/net/if_inet6, for its
// flags and the interface that has it.
func inet6Flags(ip netip.Addr, list string) (flags uint, name string) {
	if !ip.Is6() {
		return 0, ""
	}
	want := fmt.Sprintf("%x", ip.AsSlice())
	for line := range strings.Lines(list) {
		var hex string
		var index, bits, scope uint
		n, _ := fmt.Sscanf(line, "%s %x %x %x %x %s", &hex, &index, &bits, &scope, &flags, &name)
		if n == 6 && hex == want {
			return flags, name
		}
	}
	return 0, ""
}
