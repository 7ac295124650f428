#include "textflag.h"

DATA quote<>+0(SB)/1, $0x22
GLOBL quote<>(SB), RODATA|NOPTR, $1
DATA backslash<>+0(SB)/1, $0x5c
GLOBL backslash<>(SB), RODATA|NOPTR, $1
DATA lower<>+0(SB)/1, $0x20
GLOBL lower<>(SB), RODATA|NOPTR, $1
DATA opening<>+0(SB)/1, $0x7b
GLOBL opening<>(SB), RODATA|NOPTR, $1
DATA closing<>+0(SB)/1, $0x7d
GLOBL closing<>(SB), RODATA|NOPTR, $1

// STORE writes the mask of the bytes of Y0 and Y1 that equal those of a register.
#define STORE(with, to) \
	VPCMPEQB with, Y0, Y2; \
	VPCMPEQB with, Y1, Y3; \
	VPMOVMSKB Y2, AX;      \
	VPMOVMSKB Y3, BX;      \
	SHLQ $32, BX;          \
	ORQ BX, AX;            \
	MOVQ AX, to(DI)

// MARK writes the mask of the bytes of Y0 and Y1 that end a pattern whose first byte stands at ptr.
#define MARK(first, second, last, ptr, to) \
	VPCMPEQB last, Y0, Y2;       \
	VPCMPEQB last, Y1, Y3;       \
	VPCMPEQB 0(ptr), first, Y4;  \
	VPAND Y4, Y2, Y2;            \
	VPCMPEQB 32(ptr), first, Y4; \
	VPAND Y4, Y3, Y3;            \
	VPCMPEQB 1(ptr), second, Y4; \
	VPAND Y4, Y2, Y2;            \
	VPCMPEQB 33(ptr), second, Y4; \
	VPAND Y4, Y3, Y3;            \
	VPMOVMSKB Y2, AX;            \
	VPMOVMSKB Y3, BX;            \
	SHLQ $32, BX;                \
	ORQ BX, AX;                  \
	MOVQ AX, to(DI)

// func classifyAVX2(src *byte, count int, blocks *block, p *patterns)
TEXT ·classifyAVX2(SB), NOSPLIT, $0-32
	MOVQ src+0(FP), SI
	MOVQ count+8(FP), CX
	MOVQ blocks+16(FP), DI
	MOVQ p+24(FP), DX
	VPBROADCASTB quote<>(SB), Y15
	VPBROADCASTB backslash<>(SB), Y14
	VPBROADCASTB lower<>(SB), Y13
	VPBROADCASTB opening<>(SB), Y12
	VPBROADCASTB closing<>(SB), Y11
	MOVQ SI, R8
	SUBQ 0(DX), R8
	MOVQ SI, R9
	SUBQ 8(DX), R9
	VPBROADCASTB 16(DX), Y10
	VPBROADCASTB 17(DX), Y9
	VPBROADCASTB 18(DX), Y8
	VPBROADCASTB 20(DX), Y7
	VPBROADCASTB 21(DX), Y6
	VPBROADCASTB 22(DX), Y5

loop:
	VMOVDQU 0(SI), Y0
	VMOVDQU 32(SI), Y1
	STORE(Y15, 0)
	STORE(Y14, 24)
	MARK(Y10, Y9, Y8, R8, 32)
	MARK(Y7, Y6, Y5, R9, 40)
	VPOR Y13, Y0, Y0
	VPOR Y13, Y1, Y1
	STORE(Y12, 8)
	STORE(Y11, 16)
	ADDQ $64, SI
	ADDQ $64, R8
	ADDQ $64, R9
	ADDQ $48, DI
	DECQ CX
	JNZ loop
	VZEROUPPER
	RET
