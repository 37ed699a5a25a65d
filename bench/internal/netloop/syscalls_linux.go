package netloop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the loop go past Go's scheduler. It would take each wait for a
// goroutine that blocks, give its place away, and wake a thread to look after
// that: two thirds of the CPU of the whole loop. Nobody is kept waiting, for the
// loop's clock ends every wait at the next tick.

func epollWait(epoll int, events []unix.EpollEvent) (int, error) {
	const forEver = ^uintptr(0)
	return result(unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), forEver, 0, 0))
}

func read(fd int, p []byte) (int, error) {
	return result(unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))))
}

func write(fd int, p []byte) (int, error) {
	return result(unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))))
}

func result(n, _ uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
