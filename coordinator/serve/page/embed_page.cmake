# SPDX-License-Identifier: Apache-2.0
# embed_page.cmake: cmake -DOUT=FILE.c -P embed_page.cmake PAGE.html STYLE.css SCRIPT.js...
# Writes the page with its style and scripts inside as a C array, and the Content-Security-Policy that
# allows these and no other: each by the hash of its bytes.  Nothing but CMake is needed, so that a cross
# build needs no program of its own.
cmake_minimum_required(VERSION 3.25)
if(NOT OUT OR CMAKE_ARGC LESS 7)
    message(FATAL_ERROR "usage: cmake -DOUT=FILE.c -P embed_page.cmake PAGE.html STYLE.css SCRIPT.js...")
endif()

set(digits ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)

# The text of a file for delivery: without the blanks lines begin with and without lines that are comments.
function(read_lean file out)
    file(READ ${file} text)
    string(REGEX REPLACE "\n +" "\n" text "\n${text}")
    string(REGEX REPLACE "\n//[^\n]*" "" text "${text}")
    string(REGEX REPLACE "\n\n+" "\n" text "${text}")
    foreach(end "</script" "</style" "<!--")
        string(FIND "${text}" "${end}" found)
        if(NOT found EQUAL -1)
            message(FATAL_ERROR "${file}: ${end} would end its own element")
        endif()
    endforeach()
    set(${out} "${text}" PARENT_SCOPE)
endfunction()

# 'sha256-…' of a text, in base 64: three bytes, six hexadecimal digits, are four digits there.
function(source_of text out)
    string(SHA256 hex "${text}")
    string(APPEND hex 00) # 33 bytes; the last digit is not written
    set(base "")
    foreach(at RANGE 0 60 6)
        string(SUBSTRING ${hex} ${at} 6 six)
        math(EXPR value "0x${six}")
        foreach(shift 18 12 6 0)
            math(EXPR digit "(${value} >> ${shift}) & 63")
            string(SUBSTRING ${digits} ${digit} 1 letter)
            string(APPEND base ${letter})
        endforeach()
    endforeach()
    string(SUBSTRING ${base} 0 43 base)
    set(${out} "'sha256-${base}='" PARENT_SCOPE)
endfunction()

# argv: cmake -DOUT= -P script page style scripts...
set(page ${CMAKE_ARGV4})
file(READ ${page} html)
string(REGEX REPLACE "\n +" "\n" html "${html}")
read_lean(${CMAKE_ARGV5} css)
string(REGEX REPLACE "([,:;{}])[ \n]+" "\\1" css "${css}")
string(REGEX REPLACE " +([{}])" "\\1" css "${css}")
source_of("${css}" style_source)
set(elements "")
set(script_sources "")
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE 6 ${last})
    read_lean(${CMAKE_ARGV${i}} js)
    source_of("${js}" source)
    string(APPEND script_sources " ${source}")
    string(APPEND elements "<script>${js}</script>\n")
endforeach()
foreach(mark style scripts)
    string(FIND "${html}" "<!-- ${mark} -->" found)
    if(found EQUAL -1)
        message(FATAL_ERROR "${page}: has no <!-- ${mark} -->")
    endif()
endforeach()
string(REPLACE "<!-- style -->" "<style>${css}</style>" html "${html}")
string(REPLACE "<!-- scripts -->" "${elements}" html "${html}")

# Nothing from anywhere but what is named here; `trusted-types 'none'` besides switches off every way of
# turning text into markup.
set(csp "default-src 'none'; script-src${script_sources}; style-src ${style_source}; connect-src 'self'")
string(APPEND csp "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
string(APPEND csp "; require-trusted-types-for 'script'; trusted-types 'none'")

file(WRITE ${OUT}.html "${html}")
file(READ ${OUT}.html bytes HEX)
string(LENGTH "${bytes}" n_digits)
math(EXPR n_bytes "${n_digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
set(five "0x..,0x..,0x..,0x..,")
string(REGEX REPLACE "(${five}${five}${five}${five}${five})" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "/* Made by embed_page.cmake. */
#include \"coordinator/serve/page/page.h\"
const char tern_page_csp[] = \"${csp}\";
const size_t tern_page_len = ${n_bytes};
const unsigned char tern_page[] = {
${bytes}0};
")
