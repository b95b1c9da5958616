# The tiny guest: a boot sector that counts passes over its RAM for ever.
#
# In each pass it visits every page from `first` to `end`, but for the holes, checks that the page
# holds what the pass before left there, and writes what this pass leaves there. It prints
# "pass N" on COM1 after each pass and "BAD N", the address of a wrong word, before it halts; the
# numbers are hexadecimal, of eight digits. Between passes it halts for some ticks of the timer, so
# that an emulator takes no processor meanwhile.
#
# A stamped page holds its own address, the count of the pass that wrote it, and then words of a
# sequence that starts at the sum of the two: v = v * factor + step. How many words, which factor
# and which step is said by the page's kind, its number modulo 4; the rest of the page is zero.
#
# Addresses are offsets in RAM. Paging maps them, so that RAM above 4 GiB follows what lies below.

        .equ    PAGE, 0x1000
        .equ    WORDS, PAGE / 4
        .equ    PAGE_DIRECTORY, 0x8000
        # The state lies above the stack's end, so that it is reached in few bytes, and not near
        # code: an emulator that translates code has to check every write to its page.
        .equ    STACK, 0xa000
        .equ    pass, 0
        .equ    current, 4
        .equ    LARGE_PAGE, 0x400000
        .equ    LARGE_PRESENT, 0x83             # present, writable, large
        .equ    ABOVE_4G, 1 << 13               # PSE-36: bit 32 of a large page's address
        .equ    COM1, 0x3f8
        .equ    INTERRUPTS, 0x20                # the interrupt controller
        .equ    TIMER, 8                        # the vector of the timer, as the BIOS left it

        # Places in the parameters, which guest.py patches.
        .equ    kinds, 0                        # four times words, factor, step: of 16 bits
        .equ    first, 24
        .equ    zero_first, 28                  # zero in every pass
        .equ    blink_first, 32                 # zero in even passes
        .equ    hole_first, 36                  # never touched
        .equ    hole_end, 40
        .equ    end, 44
        .equ    split, 48                       # the directory entry that is above 4 GiB instead
        .equ    hot_mask, 52                    # hot: page number & hot_mask < hot_limit
        .equ    hot_limit, 56
        .equ    ticks, 60                       # of the timer, 55 ms each, to halt after each pass
        .equ    PARAMETERS, 64                  # bytes

        .globl  _start
        .text
        .code16
_start:
        cli
        cld
        xor     %ax, %ax
        mov     %ax, %ds
        lgdt    table
        lidt    table + 3
        in      $0x92, %al                      # address line 20
        or      $2, %al
        out     %al, $0x92
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmp    $8, $protected

        .code32
protected:
        mov     $16, %al                        # the rest of ax, from cr0, is 0
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $STACK, %esp
        mov     $~1, %al                        # no other interrupt has a gate
        out     %al, $INTERRUPTS + 1

        mov     $parameters, %esi               # as everywhere, but for parts of subroutines
        mov     $PAGE_DIRECTORY, %edi
        mov     %edi, %cr3
        mov     $WORDS, %ecx
        mov     $LARGE_PRESENT, %eax
1:      cmp     split(%esi), %eax
        jne     2f
        mov     $(ABOVE_4G | LARGE_PRESENT), %eax
2:      stosl
        add     $LARGE_PAGE, %eax
        loop    1b
        push    $0x10                           # large pages
        pop     %eax
        mov     %eax, %cr4
        mov     %cr0, %eax
        bts     $31, %eax                       # paging
        mov     %eax, %cr0

        andl    $0, pass(%esp)
next_pass:
        # An emulator stops a processor at a branch only, so these always belong together.
        incl    pass(%esp)
        mov     first(%esi), %ebx
next_page:
        mov     %ebx, current(%esp)
        mov     pass(%esp), %edx
        dec     %edx
        jz      clear
        mov     %ebx, %eax
        shr     $12, %eax
        and     hot_mask(%esi), %eax
        cmp     hot_limit(%esi), %eax
        jb      1f
        push    $1                              # a cold page is written in the first pass only
        pop     %edx
1:      pushf
        call    check
        popf
        jb      stamp
        jmp     skip
clear:                                          # what the firmware left there
        mov     %ebx, %edi
        xor     %eax, %eax
        mov     $(WORDS >> 8), %ch              # ecx is 0 after every loop
        rep     stosl
stamp:
        mov     pass(%esp), %edx
        call    write
skip:
        add     $PAGE, %ebx
        cmp     hole_first(%esi), %ebx
        jne     1f
        mov     hole_end(%esi), %ebx
1:      cmp     end(%esi), %ebx
        jb      next_page

        push    %esi
        mov     $pass_text, %esi
        mov     4 + pass(%esp), %ebx
        call    say
        pop     %esi
        mov     ticks(%esi), %ecx
        jecxz   next_pass
1:      sti                                     # from the next instruction on
        hlt
        cli
        loop    1b
        jmp     next_pass

tick:
        mov     $INTERRUPTS, %al                # it has been served
        out     %al, $INTERRUPTS
        iret

# What the page at ebx holds after the pass edx: at edi the words eax and edx, then ecx words of
# the sequence with the factor ebp and the step esi.
lay:
        mov     %ebx, %edi
        cmp     zero_first(%esi), %ebx
        jb      stamped
        cmp     hole_first(%esi), %ebx
        jae     stamped
        cmp     blink_first(%esi), %ebx
        jb      zero
        test    $1, %dl
        jz      zero
stamped:
        mov     %ebx, %eax
        shr     $12, %eax
        and     $3, %eax
        imul    $6, %eax, %eax
        add     %eax, %esi
        mov     %ebx, %eax
        movzwl  (%esi), %ecx
        movzwl  2(%esi), %ebp
        movzwl  4(%esi), %esi
        ret
zero:
        mov     $(WORDS - 2), %ecx
        xor     %esi, %esi
        xor     %eax, %eax
        cltd
        ret

write:
        pusha
        call    lay
        stosl
        xchg    %edx, %eax
        stosl
        add     %edx, %eax
1:      imul    %ebp, %eax
        add     %esi, %eax
        stosl
        loop    1b
        popa
        ret

check:
        pusha
        call    lay
        scasl
        jne     bad
        xchg    %edx, %eax
        scasl
        jne     bad
        add     %edx, %eax
1:      imul    %ebp, %eax
        add     %esi, %eax
        scasl
        jne     bad
        loop    1b
        popa
        ret

bad:
        lea     -4(%edi), %ebx
        mov     $bad_text, %esi
        call    say
1:      hlt
        jmp     1b

# Prints the text at esi and the number ebx.
say:
        lodsb
        test    %al, %al
        jz      1f
        call    put
        jmp     say
1:      mov     $8, %ecx
2:      rol     $4, %ebx
        mov     %bl, %al
        and     $15, %al
        cmp     $10, %al
        sbb     $0x69, %al                      # with das: 0 to 15 become "0" to "F"
        das
        call    put
        loop    2b
        mov     $'\n', %al
put:
        mov     %al, %ah
        mov     $(COM1 + 5), %dx
1:      in      %dx, %al
        test    $0x20, %al                      # room for a character
        jz      1b
        mov     %ah, %al
        mov     $(COM1 & 0xff), %dl
        out     %al, %dx
        ret

pass_text:
        .asciz  "pass "
bad_text:
        .asciz  "BAD "

        # The first descriptor is never used. In it lie the sizes and addresses, of 24 bits, of this
        # table and, from its fourth byte on, of the gates; their size, any of more than 71, are two
        # bytes of the table's address.
table:  .word   3 * 8 - 1
        .word   table
        .byte   0
        .word   timer_gate - 8 * TIMER
        .byte   0
        .quad   0x00cf9a000000ffff              # code: all 4 GiB
        .quad   0x00cf92000000ffff              # data: all 4 GiB

timer_gate:                                     # an interrupt gate into the code
        .word   tick, 8, 0x8e00, 0

        .org    _start + 510 - PARAMETERS
parameters:
        .fill   PARAMETERS
        .word   0xaa55
