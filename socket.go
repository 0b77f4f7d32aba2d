package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendNow writes what a socket takes at once, without setting a deadline. The
// socket does not block, so the one system call is over in microseconds: RawSyscall
// spares the scheduler's accounts of calls that might take long, a tenth of its cost;
// sendto spares what write does for files, and the descriptor what net does for
// calls that wait. (A 32-bit Intel kernel before 4.3 has no sendto; there the writer
// serves everybody.)
func sendNow(fd int, b []byte) (int, error) {
	first := unsafe.Pointer(unsafe.SliceData(b))
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(first), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno == 0 {
		return int(n), nil
	}
	return 0, sendError(errno)
}

// sendError is what an outbox hears of a send that failed: nothing where the socket
// only takes nothing now.
func sendError(errno syscall.Errno) error {
	switch errno {
	case 0, syscall.EAGAIN, syscall.EINTR, syscall.ENOSYS:
		return nil
	}
	return errno
}
